"""Studies: many runs from one config, their tables, tests and figures.

    python -m big_crop.study list|run|report --config FILE --workdir DIR
    python -m big_crop.study report --reference [--config FILE --workdir DIR]
    python -m big_crop.study recommend --epochs E

`grid` lists the runs of a study, `worker` trains them under `locks`, `results`
reads their metrics, and `report` makes tables, `figures` and a `page` with the
tests of `statistics`. `paper` has the numbers of "You May Be Running the Wrong
Inception Crop", which `report` shows in the same way. `resnet_strikes_back` has
those of "ResNet strikes back", which are shown beside our `ablation`s and
`seed_statistics`. `augreg` lists what "How to train your ViT?" varies.
"""
