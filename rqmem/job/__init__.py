"""What job code uses: the mixin, the context that does its memory work, chunks."""
