/* Nothing: what is left is the batch loop itself. */
#include "bench.h"

PROGRAM
{
	return 2;
}
