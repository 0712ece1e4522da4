# utils: torch.utils. Only data is here.
from picograd.utils import data as data
