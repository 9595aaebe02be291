"""The methods, a folder each: knobs in `config.py`, which imports no torch; network and loss in `network.py`.

`registry.py` names them; nothing here knows data, recipes, training or metrics.
"""
