"""Seeded fuzzing of every reader of the package.

    python -m tests.fuzz                                   10,000 cases, and a table of what happened
    python -m tests.fuzz --cases 1000 --reader "image"     cases of one reader (--list names them)
    python -m tests.fuzz --case 1064 --keep FOLDER         repeats one case, and keeps its files

The seed of the campaign (--seed) and the number of a case define it. `seed_files` and `generator_files` make undamaged
files, `mutations` changes them, `readers` reads them as the commands do, `worker` judges what happened.
"""
