"""The scorer `code`: a candidate's program is right when it passes the tests of its row.

    driver      the program inside the sandbox, of the standard library alone
    literals    values as they travel, and when an answer is the expected one
    suites      a row's tests as a plan: calls, programs with their input, or test code
    converting  `assert f(1) == 2` as a call and what is expected of it
    reading     code taken out of a candidate's text
    rows        the columns of a row, and what is wrong with them
    judge       the Judge: runs plans in a sandbox
    mutants     wrong variants of a solution

**Expected values stay outside.** A candidate's process is given arguments, and answers with values, which the trainer
compares. Where tests are code, that code runs in a second process of the sandbox, in which no code of the candidate
runs; its calls of the candidate's functions are carried to the candidate's process and back, as data. So a candidate
can do what it likes with its own process: exit, print, patch, forge. All that it achieves is a wrong value, or none.
"""
