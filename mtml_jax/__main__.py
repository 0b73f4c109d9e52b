"""Say what the package is: `python -m mtml_jax`."""

import mtml_jax

if __name__ == "__main__":
    print(f"mtml_jax {mtml_jax.__version__}: {mtml_jax.__doc__}")
    print("In the project's folder, python -m experiments lists the commands.")
