"""Many runs: recipes, benches of methods x pairs x seeds, and who works them off."""
