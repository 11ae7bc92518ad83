"""Reading a traced program: layers, receptive fields, costs, what a change of the input reaches."""
