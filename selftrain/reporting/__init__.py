"""What people see of a run: numbers in words, tables, the terminal. Shows what it is given, decides nothing.

    figures     how a number is written: 61.4%, +43.5 points [+36.0, +51.0], 2 min 5 s
    inert       text from data, made harmless for a terminal
    tables      the table of one round, and the table of all rounds, as aligned text
    terminal    progress, tables and messages while a run works (the only file that imports rich)
    status      `selftrain status`: how far a run directory is
    plan        `selftrain plan`: the resolved config, where each value is from, and what each round will do
    comparisons `selftrain compare`: runs against each other, and seeds of one recipe together

Leaves are imported by name; nothing is imported here, so that the command line stays light.
"""
