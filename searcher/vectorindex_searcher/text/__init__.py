"""From text to vectors: a model's folder, verified before anything of it is opened, and what runs it.

Needs the extra `text` (onnxruntime, tokenizers), which are imported only where an index has an encoder. Knows no FAISS
and no HTTP.
"""
