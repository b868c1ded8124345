"""What tests share: checkpoints and configs, ways to run merges and commands, cases, oracles."""
