"""The commands: each file has the options, the help and the course of one, or of a few that belong together.

What a command needs is imported when it runs, so that `lora --help` is quick.
"""
