"""What lies on the disk, by its headers alone: safetensors, `.bin` files, adapters, the hub.

Names, shapes and dtypes; no weight is read. May import measurements and below.
"""
