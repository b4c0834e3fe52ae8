"""Models behind an address: one thread decodes for all who ask. Names are imported from the module that defines them.

engine      requests in, streams of text out
lane        one model's answers: which wait, are read, are decoded
stream      what one asks and gets
stop_texts  text that is held back until it is known not to end an answer
address     where a server listens, who may ask it, and by which names its models
listening   the server
gate        what reaches it at all
openai_api  the interface
bodies, documents   what it is sent and sends
"""
