# utils: torch.utils: data, checkpointing, DLPack.
from picograd.utils import checkpoint as checkpoint, data as data, dlpack as dlpack
