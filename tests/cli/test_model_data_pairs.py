"""Every network on every data set whose images it can take: one step of training, pruned once."""

from __future__ import annotations

import pytest
from conf_files import GROUPS

MODELS = [name for name in GROUPS["model"] if name not in ("file", "timm")]
DATASETS = [name for name in GROUPS["dataset"] if name not in ("npz", "imagefolder")]
FOR_LARGE_IMAGES = {"resnet_18", "resnet_50"}  # on imagenet's 224x224 the others would take minutes each
TOO_SMALL = {(model, "digits") for model in ("lenet_5_caffe", "vgg_11", "vgg_13", "vgg_16", "vgg_19")}
QUICK = [("lenet_300_100", "digits"), ("lenet_5_caffe", "mnist"), ("resnet_20", "cifar10"), ("lenet_5_caffe", "digits")]


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        pytest.param(model, dataset, marks=() if (model, dataset) in QUICK else pytest.mark.slow)
        for model in MODELS
        for dataset in DATASETS
        if dataset != "imagenet" or model in FOR_LARGE_IMAGES
    ],
)
def test_one_step(model, dataset, run):
    said = run(
        f"model={model} dataset={dataset} scale=smoke scale.steps=1 sparsity=0.5 schedule=oneshot jobs=1 "
        "train.batch=8 out=o"
    )
    if (model, dataset) in TOO_SMALL:
        assert said.code == 2
        assert said.err.startswith(f"lthbench: model {model} cannot take inputs of ")
        assert said.err.count("\n") == 1
    else:
        assert (said.code, said.last) == (0, "stages: 5 asked, 5 computed, 0 reused"), said.err
