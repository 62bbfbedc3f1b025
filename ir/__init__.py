"""What a program is and means: instructions, objects, SSA, verification and optimization."""
