"""Network families with explicit sizes. Which size a paper uses stands in the paper's own folder."""
