"""`python -m replications.vae2013` is `regen run vae2013`; torchrun's processes share minibatches."""

from replications.__main__ import main

if __name__ == "__main__":
    main("run", "vae2013")
