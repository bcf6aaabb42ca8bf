"""`python -m replications.cyclegan2017` is `regen run cyclegan2017`; torchrun's processes share minibatches."""

from replications.__main__ import main

if __name__ == "__main__":
    main("run", "cyclegan2017")
