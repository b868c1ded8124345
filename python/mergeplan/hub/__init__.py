"""Publishing merges on the Hugging Face hub."""
