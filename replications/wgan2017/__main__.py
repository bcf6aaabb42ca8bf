"""`python -m replications.wgan2017` is `regen run wgan2017`; torchrun's processes share minibatches."""

from replications.__main__ import main

if __name__ == "__main__":
    main("run", "wgan2017")
