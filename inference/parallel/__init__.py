"""One model on several processes: each holds a part of the heads, MLP widths and experts.

A step's life: rank 0 schedules as ever; its model sends the flat batch to the other ranks and all run the
same forward pass, each on its own weights. Twice a layer, after attention and after the MLP, they add up
their results, so that every rank holds the whole residual stream and routes alike. Rank 0 chooses the tokens.

Every rank keeps the whole latent cache: all heads share one latent, so there is nothing to split by heads.
Embedding, head, norms and routers are whole on every rank too.
"""
