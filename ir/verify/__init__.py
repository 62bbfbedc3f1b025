"""What must hold before a program runs: abstract values, checks as data, and the drivers that prove them."""
