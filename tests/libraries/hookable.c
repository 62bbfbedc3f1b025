/* Functions to hook at their entries. Compiled by the tests, each time with what leaves room for a hook in another way. */
struct pair {
	unsigned long x, y;
};

struct small {
	char a, b, c;
};

struct large {
	long words[3];
};

struct mixed {
	double d;
	int i;
};

enum color { RED = -1, GREEN, BLUE };
typedef const volatile int number;

static int offset = 100;

__attribute__((noinline)) static int hidden(int a)
{
	return a * 3 + offset;
}

int calls_hidden(int a)
{
	return hidden(a) + 1;
}

__attribute__((noinline)) int add(short a, number b)
{
	return a + b;
}

long loops(long n)
{
	long sum = 0;

	for (long i = 0; i < n; i++)
		sum += add(i & 7, 1);
	return sum;
}

int f(int a, unsigned long b)
{
	return a + b;
}

/* TR-02 */
unsigned long six(unsigned long a, void *b, short c, int d, void *e, unsigned long f)
{
	return a + (unsigned long)b + c + d + (unsigned long)e + f;
}

/* TR-03 */
long eleven(char a, long b, short c, long d, int e, long f, long g, int h, long i, signed char j, unsigned k)
{
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j + 11l * k;
}

long pair_first(struct pair p, int a, int b)
{
	return p.x * 1000 + p.y * 100 + a * 10 + b;
}

long pair_middle(int a, struct pair p, int b)
{
	return p.x * 1000 + p.y * 100 + a * 10 + b;
}

long pair_last(int a, int b, struct pair p)
{
	return p.x * 1000 + p.y * 100 + a * 10 + b;
}

long pair_straddling(long a, long b, long c, long d, long e, struct pair p, long f, struct pair q)
{
	return a + b + c + d + e + p.x * 1000 + p.y * 100 + f * 10 + q.x * 100000 + q.y * 10000;
}

int small_struct(struct small s, enum color color, _Bool flag)
{
	return s.a + s.b + s.c + color + flag;
}

/* TR-04 */
int overwrites(int a, int b)
{
	a = a * b;
	b = a + 1;
	return b;
}

/* TR-05 */
int modify(int a, int *b)
{
	*b += 1;
	return a + *b + 2;
}

/* TR-12 */
long thirteen(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j, long k, long l, long m)
{
	return a + b + c + d + e + f + g + h + i + j + k + l + m;
}

int variadic(int n, ...)
{
	return n;
}

long takes_large(struct large large)
{
	return large.words[2];
}

double takes_mixed(struct mixed mixed)
{
	return mixed.d;
}

struct pair returns_pair(void)
{
	return (struct pair){1, 2};
}

__int128 wide(long a, __int128 b)
{
	return b + a;
}

long double longest(long double x)
{
	return x;
}

float half(float x, int n, double y)
{
	return x / 2 + n + y;
}

/* TR-23 */
long waits(volatile long *entered, volatile long *go)
{
	*entered = 1;
	while (!*go)
		;
	return 99;
}
