"""Commands that run the paper's experiments, and experiments on methods of other papers."""
