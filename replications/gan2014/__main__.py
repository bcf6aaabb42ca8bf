"""`python -m replications.gan2014` is `regen run gan2014`; torchrun's processes share minibatches."""

from replications.__main__ import main

if __name__ == "__main__":
    main("run", "gan2014")
