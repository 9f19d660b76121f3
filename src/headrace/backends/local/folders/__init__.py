"""Engines that compute a model out of its folder, by transformers or by ONNX Runtime.

``engine`` is what the rest of the program knows of them: a Backend whose child process (``child``)
is reached by ``frames``. In the child ``work`` has whatever was asked computed step by step;
``transformers_models`` and ``onnx_models`` do the computing, each behind the protocols of
``computing``.
"""
