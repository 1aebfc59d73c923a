//! Whether guesses did better than chance, by the binomial distribution.
