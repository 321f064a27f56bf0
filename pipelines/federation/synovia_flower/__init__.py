"""A Flower app around `synovia federate`: Flower carries weights between hospitals, the program trains and merges them."""
