"""Where the student comes from: a model as it is, with only some of its layers or tokens, or a random one; and what of it is trained."""
