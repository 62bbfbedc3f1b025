/* Sections and locks: RCU, preemption, interrupts, resilient locks; work that is done later.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

struct task_struct {
	int pid;
	struct task_struct *real_parent;
} __attribute__((preserve_access_index));

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;
extern void bpf_local_irq_save(unsigned long *flags) __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym;
extern int bpf_res_spin_lock(struct bpf_res_spin_lock *lock) __ksym;
extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock) __ksym;
extern int bpf_res_spin_lock_irqsave(struct bpf_res_spin_lock *lock, unsigned long *flags) __ksym;
extern void bpf_res_spin_unlock_irqrestore(struct bpf_res_spin_lock *lock, unsigned long *flags) __ksym;
extern int bpf_copy_from_user_str(void *to, __u32 size, const void *from, __u64 flags) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym;
extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq, int (*done)(void *map, int *key, void *value), unsigned int flags,
				    void *aux) __ksym;

struct value {
	long count;
	struct bpf_res_spin_lock lock;
	struct bpf_wq work;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct value);
} values SEC(".maps"), others SEC(".maps");

struct kept {
	struct task_struct __kptr *task;
	struct bpf_wq work;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct kept);
} keeper SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} programs SEC(".maps");

static __noinline struct value *find(__u32 key)
{
	return bpf_map_lookup_elem(&values, &key);
}

SEC("syscall") int copy_outside_of_sections(void *context)
{
	char text[8];
	return bpf_copy_from_user_str(text, sizeof(text), 0, 0);
}

SEC("syscall") REFUSED(may-sleep) int copy_in_an_rcu_section(void *context)
{
	char text[8];
	bpf_rcu_read_lock();
	bpf_copy_from_user_str(text, sizeof(text), 0, 0);
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall") REFUSED(may-sleep) int copy_with_preemption_off(void *context)
{
	char text[8];
	bpf_preempt_disable();
	bpf_copy_from_user_str(text, sizeof(text), 0, 0);
	bpf_preempt_enable();
	return 0;
}

SEC("syscall") REFUSED(may-sleep) int copy_with_interrupts_off(void *context)
{
	unsigned long flags;
	char text[8];
	bpf_local_irq_save(&flags);
	bpf_copy_from_user_str(text, sizeof(text), 0, 0);
	bpf_local_irq_restore(&flags);
	return 0;
}

__noinline int copies(int n)
{
	char text[8];
	return bpf_copy_from_user_str(text, sizeof(text), 0, 0) + n;
}

SEC("syscall") int global_function_that_sleeps(void *context)
{
	return copies(1);
}

SEC("syscall") REFUSED(may-sleep) int global_function_that_sleeps_in_a_section(void *context)
{
	bpf_rcu_read_lock();
	copies(1);
	bpf_rcu_read_unlock();
	return 0;
}

SEC("tc") int preemption_off_twice(struct __sk_buff *skb)
{
	bpf_preempt_disable();
	bpf_preempt_disable();
	bpf_preempt_enable();
	bpf_preempt_enable();
	return 0;
}

SEC("tc") REFUSED(section-open) int preemption_on_once_too_few(struct __sk_buff *skb)
{
	bpf_preempt_disable();
	bpf_preempt_disable();
	bpf_preempt_enable();
	return 0;
}

SEC("tc") REFUSED(section-not-open) int preemption_on_once_too_many(struct __sk_buff *skb)
{
	bpf_preempt_enable();
	return 0;
}

SEC("tc") int interrupts_off_twice(struct __sk_buff *skb)
{
	unsigned long outer, inner;
	bpf_local_irq_save(&outer);
	bpf_local_irq_save(&inner);
	bpf_local_irq_restore(&inner);
	bpf_local_irq_restore(&outer);
	return 0;
}

SEC("tc") REFUSED(section-not-open) int interrupts_restored_in_the_wrong_order(struct __sk_buff *skb)
{
	unsigned long outer, inner;
	bpf_local_irq_save(&outer);
	bpf_local_irq_save(&inner);
	bpf_local_irq_restore(&outer);
	bpf_local_irq_restore(&inner);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int interrupts_never_restored(struct __sk_buff *skb)
{
	unsigned long flags;
	bpf_local_irq_save(&flags);
	return 0;
}

SEC("tc") int resilient_lock(struct __sk_buff *skb)
{
	struct value *value = find(0);
	if (!value || bpf_res_spin_lock(&value->lock))
		return 0;
	value->count++;
	bpf_res_spin_unlock(&value->lock);
	return 0;
}

SEC("tc") REFUSED(lock-not-held) int resilient_lock_that_may_have_failed(struct __sk_buff *skb)
{
	struct value *value = find(0);
	if (!value)
		return 0;
	bpf_res_spin_lock(&value->lock);
	bpf_res_spin_unlock(&value->lock);
	return 0;
}

SEC("tc") REFUSED(lock-held) int resilient_lock_held_at_the_end(struct __sk_buff *skb)
{
	struct value *value = find(0);
	if (value && !bpf_res_spin_lock(&value->lock))
		value->count++;
	return 0;
}

SEC("tc") int two_resilient_locks(struct __sk_buff *skb)
{
	struct value *a = find(0), *b = find(1);
	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	if (!bpf_res_spin_lock(&b->lock)) {
		b->count = a->count;
		bpf_res_spin_unlock(&b->lock);
	}
	bpf_res_spin_unlock(&a->lock);
	return 0;
}

SEC("tc") REFUSED(lock-not-held) int two_resilient_locks_in_the_wrong_order(struct __sk_buff *skb)
{
	struct value *a = find(0), *b = find(1);
	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	if (bpf_res_spin_lock(&b->lock)) {
		bpf_res_spin_unlock(&a->lock);
		return 0;
	}
	bpf_res_spin_unlock(&a->lock);
	bpf_res_spin_unlock(&b->lock);
	return 0;
}

SEC("tc") REFUSED(lock-held) int one_resilient_lock_twice(struct __sk_buff *skb)
{
	struct value *a = find(0);
	if (!a || bpf_res_spin_lock(&a->lock))
		return 0;
	if (!bpf_res_spin_lock(&a->lock))
		bpf_res_spin_unlock(&a->lock);
	bpf_res_spin_unlock(&a->lock);
	return 0;
}

SEC("tc") int resilient_lock_with_interrupts_off(struct __sk_buff *skb)
{
	unsigned long flags;
	struct value *value = find(0);
	if (!value || bpf_res_spin_lock_irqsave(&value->lock, &flags))
		return 0;
	value->count++;
	bpf_res_spin_unlock_irqrestore(&value->lock, &flags);
	return 0;
}

SEC("tc") REFUSED(lock-not-held) int resilient_lock_given_back_without_the_interrupts(struct __sk_buff *skb)
{
	unsigned long flags;
	struct value *value = find(0);
	if (!value || bpf_res_spin_lock_irqsave(&value->lock, &flags))
		return 0;
	bpf_res_spin_unlock(&value->lock);
	bpf_local_irq_restore(&flags);
	return 0;
}

SEC("tc") REFUSED(lock-held) int helper_under_a_resilient_lock(struct __sk_buff *skb)
{
	struct value *value = find(0);
	if (!value || bpf_res_spin_lock(&value->lock))
		return 0;
	bpf_ktime_get_ns();
	bpf_res_spin_unlock(&value->lock);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int tail_call_with_an_iterator(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	bpf_iter_num_new(&it, 0, 3);
	bpf_tail_call(skb, &programs, 0);
	bpf_iter_num_destroy(&it);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int legacy_load_with_an_iterator(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	bpf_iter_num_new(&it, 0, 3);
	long byte = load_byte(skb, 14);
	bpf_iter_num_destroy(&it);
	return byte;
}

SEC("syscall") int tasks_in_an_rcu_section(void *context)
{
	struct bpf_iter_task it;
	struct task_struct *task;
	int n = 0;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, 0, 0);
	while ((task = bpf_iter_task_next(&it)))
		n += task->pid;
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	return n;
}

SEC("syscall") REFUSED(section-not-open) int tasks_outside_of_a_section(void *context)
{
	struct bpf_iter_task it;
	bpf_iter_task_new(&it, 0, 0);
	bpf_iter_task_next(&it);
	bpf_iter_task_destroy(&it);
	return 0;
}

SEC("syscall") REFUSED(bad-argument) int tasks_in_two_sections(void *context)
{
	struct bpf_iter_task it;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, 0, 0);
	bpf_rcu_read_unlock();
	bpf_rcu_read_lock();
	bpf_iter_task_next(&it);
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	return 0;
}

SEC("tp_btf/task_newtask") int a_parent_within_a_section(__u64 *arguments)
{
	struct task_struct *parent, *kept = 0;
	bpf_rcu_read_lock();
	parent = ((struct task_struct *)arguments[0])->real_parent;
	if (parent)
		kept = bpf_task_acquire(parent);
	bpf_rcu_read_unlock();
	if (kept)
		bpf_task_release(kept);
	return 0;
}

SEC("tp_btf/task_newtask") REFUSED(untrusted-pointer) int a_parent_after_its_section(__u64 *arguments)
{
	struct task_struct *parent, *kept = 0;
	bpf_rcu_read_lock();
	parent = ((struct task_struct *)arguments[0])->real_parent;
	bpf_rcu_read_unlock();
	if (parent)
		kept = bpf_task_acquire(parent);
	if (kept)
		bpf_task_release(kept);
	return 0;
}

static int counts(void *map, int *key, void *value)
{
	((struct value *)value)->count++;
	return 0;
}

static int leaks(void *map, int *key, void *value)
{
	bpf_ringbuf_reserve(&ring, 8, 0);
	return 0;
}

static int returns_one(void *map, int *key, void *value)
{
	return 1;
}

static __always_inline int later(int (*done)(void *, int *, void *), void *map)
{
	struct value *value = find(0);
	if (!value || bpf_wq_init(&value->work, map, 0))
		return 0;
	bpf_wq_set_callback_impl(&value->work, done, 0, 0);
	return bpf_wq_start(&value->work, 0);
}

SEC("tc") int work_done_later(struct __sk_buff *skb)
{
	return later(counts, &values);
}

SEC("tc") REFUSED(reference-leak) int work_that_leaks(struct __sk_buff *skb)
{
	return later(leaks, &values);
}

SEC("tc") REFUSED(return-range) int work_with_a_result(struct __sk_buff *skb)
{
	return later(returns_one, &values);
}

SEC("tc") REFUSED(bad-argument) int work_of_another_map(struct __sk_buff *skb)
{
	return later(counts, &others);
}

SEC("syscall") int threads_of_a_task(void *context)
{
	struct bpf_iter_task it;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, bpf_get_current_task_btf(), 1);
	bpf_iter_task_next(&it);
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall") REFUSED(untrusted-pointer) int threads_of_a_parent(void *context)
{
	struct bpf_iter_task it;
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, bpf_get_current_task_btf()->real_parent, 1);
	bpf_iter_task_next(&it);
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	return 0;
}

static int copies_later(void *map, int *key, void *value)
{
	char text[8];
	return bpf_copy_from_user(text, sizeof(text), 0) & 0;
}

static int refers(void *map, int *key, void *value)
{
	struct task_struct *task = ((struct kept *)value)->task;
	if (task)
		task = bpf_task_acquire(task);
	if (task)
		bpf_task_release(task);
	return 0;
}

static int refers_in_a_section(void *map, int *key, void *value)
{
	struct task_struct *task;
	bpf_rcu_read_lock();
	task = ((struct kept *)value)->task;
	if (task)
		task = bpf_task_acquire(task);
	bpf_rcu_read_unlock();
	if (task)
		bpf_task_release(task);
	return 0;
}

static int nothing(void *map, int *key, void *value)
{
	return 0;
}

static __always_inline int work(int (*done)(void *, int *, void *))
{
	__u32 key = 0;
	struct kept *kept = bpf_map_lookup_elem(&keeper, &key);
	if (!kept || bpf_wq_init(&kept->work, &keeper, 0))
		return 0;
	bpf_wq_set_callback_impl(&kept->work, done, 0, 0);
	return bpf_wq_start(&kept->work, 0);
}

static __always_inline int alarm(int (*done)(void *, int *, void *), void *map)
{
	__u32 key = 0;
	struct kept *kept = bpf_map_lookup_elem(&keeper, &key);
	if (!kept || bpf_timer_init(&kept->timer, map, 1))
		return 0;
	bpf_timer_set_callback(&kept->timer, done);
	return bpf_timer_start(&kept->timer, 1, 0);
}

SEC("tc") int work_that_sleeps(struct __sk_buff *skb)
{
	return work(copies_later);
}

SEC("syscall") REFUSED(may-sleep) int alarm_that_sleeps(void *context)
{
	return alarm(copies_later, &keeper);
}

SEC("tc") REFUSED(untrusted-pointer) int work_on_what_a_map_keeps(struct __sk_buff *skb)
{
	return work(refers);
}

SEC("tc") int work_on_what_a_map_keeps_in_a_section(struct __sk_buff *skb)
{
	return work(refers_in_a_section);
}

SEC("tc") int alarm_on_what_a_map_keeps(struct __sk_buff *skb)
{
	return alarm(refers, &keeper);
}

SEC("tc") int alarm_of_its_map(struct __sk_buff *skb)
{
	return alarm(nothing, &keeper);
}

SEC("tc") REFUSED(bad-argument) int alarm_of_another_map(struct __sk_buff *skb)
{
	return alarm(nothing, &values);
}

SEC("syscall") int a_section_after_another(void *context)
{
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall") REFUSED(section-open) int a_section_within_another(void *context)
{
	bpf_rcu_read_lock();
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall") REFUSED(untrusted-pointer) int a_parent_where_the_program_may_sleep(void *context)
{
	struct task_struct *parent = bpf_task_acquire(bpf_get_current_task_btf()->real_parent);
	if (parent)
		bpf_task_release(parent);
	return 0;
}

SEC("syscall") int a_parent_in_a_section_where_the_program_may_sleep(void *context)
{
	struct task_struct *parent;
	bpf_rcu_read_lock();
	parent = bpf_task_acquire(bpf_get_current_task_btf()->real_parent);
	bpf_rcu_read_unlock();
	if (parent)
		bpf_task_release(parent);
	return 0;
}

char _license[] SEC("license") = "GPL";
