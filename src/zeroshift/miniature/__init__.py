"""A small world with a known truth: rendered portraits in 84 domains, and models trained on them.

What users run:

- `world`: the renderer, its factors, domains and captions, and sheets of images;
- `plugin`: the entries that the registries of zeroshift load by name ("miniature", "miniature-judge", …);
- `benchmark`: methods compared with each other and with the truth.

What maintainers run to make and check the files in `weights`:

- `training`: one recipe per model;
- `exams`: measurements of the models, also used by `benchmark`.

`networks` has the architectures and file formats of encoders and probe. `commands` is `zeroshift miniature`.
Imports go in one direction: world < networks < exams < training < benchmark < commands.
"""
