"""What every worker needs, imported once: workers are forked from the process that has it."""

import warnings

import mergekit.merge
import torch
import transformers
import transformers.modeling_utils

import tests.tools.zoo.trial  # noqa: F401

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
assert mergekit.merge
