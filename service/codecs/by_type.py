"""The formats that a tensor comes and goes in, by media type."""

from service.codecs.codec import Codec
from service.codecs.json import JSON
from service.codecs.npy import NPY
from service.codecs.raw import RAW
from service.codecs.safetensors import SAFETENSORS

CODECS: dict[str, Codec] = {codec.media_type: codec for codec in (JSON, NPY, SAFETENSORS, RAW)}
