"""Studies: many runs from one config, their tables, tests and figures.

    python -m big_crop.study list|run|report --config FILE --workdir DIR
    python -m big_crop.study report --reference [--config FILE --workdir DIR]
    python -m big_crop.study recommend --epochs E

`grid` says which runs there are, `worker` trains them under `locks`, `results`
reads what they left, and `report` makes `tables`, `figures` and a `page` of it
with the tests of `statistics`. `paper` holds the paper's numbers, which go
the same way, `resnet_strikes_back` those of another one, which stand beside
its ablations (`ablation`) and statistics over seeds (`seed_statistics`), and
`augreg` what a third one varies.
"""
