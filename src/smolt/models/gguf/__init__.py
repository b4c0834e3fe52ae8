"""GGUF, the file of llama.cpp and what is built on it: read as a model directory, and written of one.

pretokenizers   how text is split before it is merged into tokens, by the names that llama.cpp gives to splits
reader          a file as a model directory
header          what the file says of its model and transformers does not read
tensors         an architecture's parameters and weights as llama.cpp names and lays them out
vocabulary      a tokenizer as the file holds it
destination     where the file goes
writer          a model as one file
modelfile       what Ollama is told about the file
"""
