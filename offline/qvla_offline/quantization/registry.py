"""The quantizers by name. A new one is its own file and one line here."""

from __future__ import annotations

# {name: "module:class"}: named, not imported, so that schemes and options need no torch.
# A class is called with the scheme and gives a Quantizer.
QUANTIZERS: dict[str, str] = {
    "clip_search": "qvla_offline.quantization.clip_search:ClipSearch",
    "rtn": "qvla_offline.quantization.rtn:RoundToNearest",
    "released": "qvla_offline.quantization.released:Released",
    "gptq": "qvla_offline.quantization.gptq:Gptq",
    "awq": "qvla_offline.quantization.awq:Awq",
    "smoothquant": "qvla_offline.quantization.smoothquant:SmoothQuant",
    "guided_gptq": "qvla_offline.quantization.guided_gptq:GuidedGptq",
}
