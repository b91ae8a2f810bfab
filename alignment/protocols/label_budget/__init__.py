"""What a label is worth: votes bought from pools of pairs, and what they teach.

`worlds` and `recorded` make pools whose votes are cast but not yet bought,
`allocation` and `queries` decide what to buy, `aggregation` makes labels of it,
`reward` fits a linear reward to them, `price` and `mixes` express the result in
clean labels and in money.
"""
