/* The native counterpart of helpers: reached through a pointer that the compiler cannot see through. */
typedef unsigned int __u32;
typedef unsigned long long __u64;

static __u64 state = 0x9E3779B97F4A7C15;

static __u32 next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 32;
}

__u32 (*random32)(void) = next_random;
