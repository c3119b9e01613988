"""Why the user's code failed, where, and what to change: `forward` for a forward pass, `user_code` for file and line.

The text of an error of torch names neither the layer nor the line of the user, and seldom says what to do.
"""
