"""Which models a bill of materials names: those of the plan, with the pins of the configuration."""

from __future__ import annotations

from pathlib import Path

from classifiers.image.registry import NetSettings
from classifiers.registry import SHIPPED
from manifests.cyclonedx import UsedModel
from pipeline.bom import used_models
from pipeline.config import Config, EmbedderConfig, HeadConfig, PolicyConfig
from pipeline.models.known import parse


def test_every_model_of_the_plan_is_named_with_its_pin_and_a_licence_where_the_shipped_record_has_the_pin(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    shipped = {model.name: model for model in parse(SHIPPED, SHIPPED.read_bytes())}
    head = shipped["laion-nsfw-l14@1"].file[0].sha256
    config = Config(
        tmp_path,
        (),
        PolicyConfig(profile="lists-only"),
        embedder=EmbedderConfig("openai-clip-vit-l-14@1", folder, "ab" * 32),
        head=(HeadConfig(Path("nsfw.zip"), head, "laion-nsfw"), HeadConfig(Path("ours.safetensors"), "cd" * 32)),
        net=(NetSettings("open-nsfw@1", Path("other.onnx"), "ef" * 32),),
    )
    examine = {
        "embedder": "openai-clip-vit-l-14@1#abababab/bicubic224/bf16",
        "heads": [f"laion-nsfw-l14@1#{head[:8]}/literal", "ours@3#cdcdcdcd"],
        "nets": ["open-nsfw@1#efefefef/squash224/fp32"],
    }
    assert used_models(config, examine) == (
        UsedModel(examine["embedder"], "ab" * 32, is_folder=True, licence="MIT"),
        UsedModel(examine["heads"][0], head, is_folder=False, licence="MIT"),
        UsedModel(examine["heads"][1], "cd" * 32, is_folder=False, licence=""),
        UsedModel(examine["nets"][0], "ef" * 32, is_folder=False, licence=""),  # of that name, and another file
    )
    assert used_models(Config(tmp_path, (), config.policy), {"embedder": "", "heads": [], "nets": []}) == ()
