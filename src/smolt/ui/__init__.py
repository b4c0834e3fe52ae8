"""The browser face, `smolt ui`: chat, a blind arena, labels, the runs, and a form for recipes. Needs the extra `ui`.

environment  what a face is started with, and an environment of its own
server       the address it listens on
application  the page and the reports, behind the guard
guard        what reaches the page at all: hosts, sizes, paths; the headers of every answer
sign_in      the password of a face that others can reach
face         the tabs put together, and their style
offers       the models there are, by name
talks        what is said to a model, and its answer as it comes
launches     a training started from the form, as a process of its own
tabs         one file a tab
"""
