"""DINOv2 encoders with facebookresearch/dinov2 names -> VisionTransformer."""

from weights_conversion.rules import Rule, patch_kernel, transpose


def encoder_rules(num_blocks: int) -> list[Rule]:
  """Rule table for an encoder.

  Args:
    num_blocks: Blocks of the model; later ones of the file are not needed.

  Returns:
    Rules from `blocks.0.attn.qkv.weight` and the like to the state of a
    `VisionTransformer`.
  """
  used = "|".join(str(i) for i in range(num_blocks))
  block = rf"blocks\.({used})\."
  return [
    Rule(r"cls_token", "cls_token"),
    Rule(r"pos_embed", "pos_embed"),
    Rule(r"register_tokens", "register_tokens"),
    Rule(r"patch_embed\.proj\.weight", "patch_embed/kernel", patch_kernel),
    Rule(r"patch_embed\.proj\.bias", "patch_embed/bias"),
    Rule(block + r"norm([12])\.weight", r"blocks/\1/norm\2/scale"),
    Rule(block + r"norm([12])\.bias", r"blocks/\1/norm\2/bias"),
    Rule(
      block + r"(attn|mlp)\.(qkv|proj|fc1|fc2)\.weight",
      r"blocks/\1/\2/\3/kernel",
      transpose,
    ),
    Rule(
      block + r"(attn|mlp)\.(qkv|proj|fc1|fc2)\.bias",
      r"blocks/\1/\2/\3/bias",
    ),
    Rule(block + r"ls([12])\.gamma", r"blocks/\1/ls\2"),
    # Known and never run: masking, later blocks and the final norm.
    Rule(r"mask_token", None),
    Rule(rf"blocks\.(?!(?:{used})\.)\d+\..*", None),
    Rule(r"norm\.(weight|bias)", None),
  ]
