"""A data set from one round: its survivors in the formats that TRL's trainers take, with a card.

    rows        what is exported of an answer, and the rows of each format
    pairs       which candidates of a prompt make a preference pair
    columns     what a candidate file's own columns hold
    writing     rows into Parquet and JSONL files, some at a time
    card        README.md, as the hub reads it
    publishing  the folder: there whole or not at all, and nobody else's overwritten
    hub         to the Hugging Face hub

The folder is flat: `prompt_completion.parquet` and `.jsonl`, the same for `messages` (prompts as text: `text`) and for
`preference` where pairs are asked for, README.md, and `selftrain.json`, which says what it was made from. Equal
committed files and equal settings give equal bytes.
"""
