/* Objects that programs allocate, and the lists, trees and map values that own them.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern void *bpf_obj_new_impl(__u64 type, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;
extern void *bpf_percpu_obj_new_impl(__u64 type, void *meta) __ksym;
extern void bpf_percpu_obj_drop_impl(void *object, void *meta) __ksym;
extern void *bpf_refcount_acquire_impl(void *object, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, __u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head) __ksym;
extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
			       _Bool (*less)(struct bpf_rb_node *a, const struct bpf_rb_node *b), void *meta, __u64 off) __ksym;
extern struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;
extern struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

struct plain {
	long data;
	long more;
};

struct item {
	long key;
	struct bpf_list_node link;
	struct bpf_rb_node node;
	struct bpf_refcount count;
	long data;
};

struct kept {
	struct plain __kptr *object;
	struct plain __percpu_kptr *each;
	struct task_struct __kptr *task;
	struct task_struct __attribute__((btf_type_tag("kptr_untrusted"))) *untrusted;
	long count;
};

struct holder {
	long number;
	struct task_struct __kptr *task;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kept);
} keeper SEC(".maps");

private(A) struct bpf_spin_lock lock;
private(A) struct bpf_list_head list __contains(item, link);
private(A) struct bpf_rb_root tree __contains(item, node);
private(B) struct bpf_spin_lock other_lock;

#define new(type) ((type *)bpf_obj_new_impl(type_id(type), 0))
#define drop(object) bpf_obj_drop_impl(object, 0)
#define push(item) bpf_list_push_front_impl(&list, &(item)->link, 0, 0)
#define add(item) bpf_rbtree_add_impl(&tree, &(item)->node, less, 0, 0)

/* A use that the compiler keeps where it is: the program would not be the one that is meant. */
#define touch(pointer) asm volatile("r0 = *(u64 *)(%0 + 0)" : : "r"(pointer) : "r0")

static struct kept *find(void)
{
	__u32 key = 0;
	return bpf_map_lookup_elem(&keeper, &key);
}

static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct item, node)->key < container_of(b, struct item, node)->key;
}

SEC("tc") int object_dropped(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	object->data = 1;
	drop(object);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int object_forgotten(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	object->data = 1;
	return 0;
}

SEC("tc") REFUSED(null-dereference) int object_not_compared_with_null(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	touch(object);
	if (object)
		drop(object);
	return 0;
}

SEC("tc") REFUSED(not-a-pointer) int object_used_after_it_was_dropped(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	drop(object);
	touch(object);
	return 0;
}

SEC("tc") REFUSED(bad-argument) int object_dropped_twice(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	drop(object);
	drop(object);
	return 0;
}

SEC("tc") REFUSED(out-of-bounds) int past_the_end_of_an_object(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	touch((char *)object + 16);
	drop(object);
	return 0;
}

SEC("tc") REFUSED(special-field) int node_written_as_bytes(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	*(volatile long *)&item->link = 1;
	drop(item);
	return 0;
}

SEC("tc") int pushed_on_a_list(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	push(item);
	item->data = 7;
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("tc") REFUSED(lock-not-held) int pushed_without_the_lock(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	push(item);
	return 0;
}

SEC("tc") REFUSED(lock-not-held) int pushed_under_another_lock(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&other_lock);
	push(item);
	bpf_spin_unlock(&other_lock);
	return 0;
}

SEC("tc") REFUSED(bad-release) int pushed_twice(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	push(item);
	push(item);
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("tc") REFUSED(not-a-pointer) int pushed_and_used_after_the_lock(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	push(item);
	bpf_spin_unlock(&lock);
	touch(item);
	return 0;
}

SEC("tc") REFUSED(bad-argument) int pushed_by_the_wrong_node(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	bpf_list_push_front_impl(&list, (void *)&item->node, 0, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("tc") int popped_from_a_list(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock);
	struct bpf_list_node *node = bpf_list_pop_front(&list);
	bpf_spin_unlock(&lock);
	if (!node)
		return 0;
	struct item *item = container_of(node, struct item, link);
	item->data++;
	drop(item);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int popped_from_a_list_and_forgotten(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock);
	struct bpf_list_node *node = bpf_list_pop_back(&list);
	bpf_spin_unlock(&lock);
	return node != 0;
}

SEC("tc") REFUSED(bad-argument) int popped_and_dropped_by_its_node(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock);
	struct bpf_list_node *node = bpf_list_pop_front(&list);
	bpf_spin_unlock(&lock);
	if (node)
		drop(node);
	return 0;
}

SEC("tc") int added_to_a_tree_and_removed(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	item->key = skb->len;
	bpf_spin_lock(&lock);
	add(item);
	struct bpf_rb_node *node = bpf_rbtree_first(&tree);
	if (node)
		node = bpf_rbtree_remove(&tree, node);
	bpf_spin_unlock(&lock);
	if (node)
		drop(container_of(node, struct item, node));
	return 0;
}

SEC("tc") REFUSED(lock-held) int dropped_under_the_lock(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock);
	struct bpf_rb_node *node = bpf_rbtree_first(&tree);
	if (node)
		node = bpf_rbtree_remove(&tree, node);
	if (node)
		drop(container_of(node, struct item, node));
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("tc") REFUSED(bad-argument) int removed_what_is_not_in_a_tree(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	struct bpf_rb_node *node = bpf_rbtree_remove(&tree, &item->node);
	bpf_spin_unlock(&lock);
	if (node)
		drop(container_of(node, struct item, node));
	return 0;
}

SEC("tc") REFUSED(not-a-pointer) int first_of_a_tree_after_the_lock(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock);
	struct bpf_rb_node *node = bpf_rbtree_first(&tree);
	bpf_spin_unlock(&lock);
	if (node)
		touch(container_of(node, struct item, node));
	return 0;
}

static _Bool unlocks(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_spin_unlock(&lock);
	bpf_spin_lock(&lock);
	return 0;
}

SEC("tc") REFUSED(lock-held) int comparison_that_unlocks(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	bpf_rbtree_add_impl(&tree, &item->node, unlocks, 0, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

static _Bool looks(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return bpf_rbtree_first(&tree) == b;
}

SEC("tc") int comparison_that_looks_into_the_tree(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	bpf_rbtree_add_impl(&tree, &item->node, looks, 0, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

static _Bool takes_out(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	struct bpf_rb_node *node = bpf_rbtree_first(&tree);
	return node && bpf_rbtree_remove(&tree, node);
}

SEC("tc") REFUSED(lock-held) int comparison_that_changes_the_tree(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_spin_lock(&lock);
	bpf_rbtree_add_impl(&tree, &item->node, takes_out, 0, 0);
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("tc") int counted_twice_and_dropped_twice(struct __sk_buff *skb)
{
	struct item *item = new(struct item), *again;
	if (!item)
		return 0;
	again = bpf_refcount_acquire_impl(item, 0);
	again->data = 1;
	drop(item);
	drop(again);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int counted_twice_and_dropped_once(struct __sk_buff *skb)
{
	struct item *item = new(struct item);
	if (!item)
		return 0;
	bpf_refcount_acquire_impl(item, 0);
	drop(item);
	return 0;
}

SEC("tc") REFUSED(bad-argument) int counted_without_a_count(struct __sk_buff *skb)
{
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	void *again = bpf_refcount_acquire_impl(object, 0);
	if (again)
		drop(again);
	drop(object);
	return 0;
}

SEC("tc") int exchanged_into_a_map(struct __sk_buff *skb)
{
	struct kept *kept = find();
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	if (kept)
		object = bpf_kptr_xchg(&kept->object, object);
	if (object)
		drop(object);
	return 0;
}

SEC("tc") REFUSED(not-a-pointer) int used_after_it_was_exchanged(struct __sk_buff *skb)
{
	struct kept *kept = find();
	struct plain *object = new(struct plain), *old;
	if (!object)
		return 0;
	if (!kept) {
		drop(object);
		return 0;
	}
	old = bpf_kptr_xchg(&kept->object, object);
	if (old)
		drop(old);
	touch(object);
	return 0;
}

SEC("tc") REFUSED(bad-argument) int another_type_exchanged_into_a_map(struct __sk_buff *skb)
{
	struct kept *kept = find();
	void *object = new(struct item);
	if (!object)
		return 0;
	if (kept)
		object = bpf_kptr_xchg(&kept->object, object);
	if (object)
		drop(object);
	return 0;
}

SEC("syscall") int task_exchanged_into_a_map(void *context)
{
	struct kept *kept = find();
	struct task_struct *task = bpf_task_from_pid(1);
	if (!task)
		return 0;
	if (kept)
		task = bpf_kptr_xchg(&kept->task, task);
	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("syscall") REFUSED(bad-argument) int object_exchanged_for_a_task(void *context)
{
	struct kept *kept = find();
	void *object = new(struct plain);
	if (!object)
		return 0;
	if (kept)
		object = bpf_kptr_xchg(&kept->task, object);
	if (object)
		drop(object);
	return 0;
}

SEC("syscall") REFUSED(bad-argument) int what_was_exchanged_is_of_the_type_of_its_place(void *context)
{
	struct kept *kept = find();
	struct plain *object = new(struct plain);
	if (!object)
		return 0;
	if (kept)
		object = bpf_kptr_xchg(&kept->object, object);
	if (object)
		bpf_task_release((void *)object);
	return 0;
}

SEC("syscall") REFUSED(special-field) int null_stored_where_a_reference_may_be(void *context)
{
	struct kept *kept = find();
	unsigned long nothing = 0;
	asm volatile("" : "+r"(nothing));
	if (kept)
		*(volatile unsigned long *)&kept->task = nothing;
	return 0;
}

SEC("syscall") int null_exchanged_for_a_reference(void *context)
{
	struct kept *kept = find();
	struct task_struct *task = kept ? bpf_kptr_xchg(&kept->task, 0) : 0;
	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("syscall") REFUSED(special-field) int a_helper_writes_over_a_reference(void *context)
{
	struct kept *kept = find();
	if (kept)
		bpf_probe_read_kernel(&kept->task, sizeof(kept->task), 0);
	return 0;
}

SEC("syscall") int a_helper_writes_beside_references(void *context)
{
	struct kept *kept = find();
	if (kept)
		bpf_probe_read_kernel(&kept->count, sizeof(kept->count), 0);
	return 0;
}

SEC("syscall") REFUSED(special-field) int an_atomic_exchange_of_a_reference(void *context)
{
	struct kept *kept = find();
	return kept && __sync_lock_test_and_set((unsigned long *)&kept->task, 0);
}

SEC("tp_btf/task_newtask") int an_object_kept_untrusted(void *context)
{
	struct kept *kept = find();
	if (kept)
		kept->untrusted = bpf_get_current_task_btf();
	return 0;
}

SEC("tp_btf/task_newtask") REFUSED(special-field) int a_number_kept_untrusted(void *context)
{
	struct kept *kept = find();
	if (kept)
		*(volatile unsigned long *)&kept->untrusted = 8;
	return 0;
}

SEC("tp_btf/task_newtask") REFUSED(special-field) int the_middle_of_an_object_kept_untrusted(void *context)
{
	struct kept *kept = find();
	if (kept)
		kept->untrusted = (void *)bpf_get_current_task_btf() + 8;
	return 0;
}

SEC("tc") REFUSED(special-field) int reference_within_an_object_read(struct __sk_buff *skb)
{
	struct holder *holder = new(struct holder);
	if (!holder)
		return 0;
	touch(&holder->task);
	drop(holder);
	return 0;
}

SEC("tc") REFUSED(bad-argument) int a_helper_writes_over_an_object(struct __sk_buff *skb)
{
	struct holder *holder = new(struct holder);
	if (!holder)
		return 0;
	bpf_skb_load_bytes(skb, 0, holder, sizeof(*holder));
	drop(holder);
	return 0;
}

SEC("tc") int number_within_an_object_read(struct __sk_buff *skb)
{
	struct holder *holder = new(struct holder);
	if (!holder)
		return 0;
	touch(&holder->number);
	drop(holder);
	return 0;
}

SEC("syscall") int object_for_each_cpu(void *context)
{
	struct kept *kept = find();
	void *each = bpf_percpu_obj_new_impl(type_id(struct plain), 0);
	if (!each)
		return 0;
	if (kept)
		each = bpf_kptr_xchg(&kept->each, each);
	if (each)
		bpf_percpu_obj_drop_impl(each, 0);
	return 0;
}

SEC("syscall") REFUSED(bad-argument) int object_for_each_cpu_dropped_as_one(void *context)
{
	void *each = bpf_percpu_obj_new_impl(type_id(struct plain), 0);
	if (each)
		drop(each);
	return 0;
}

SEC("syscall") REFUSED(bad-access) int object_for_each_cpu_used_as_one(void *context)
{
	void *each = bpf_percpu_obj_new_impl(type_id(struct plain), 0);
	if (!each)
		return 0;
	touch(each);
	bpf_percpu_obj_drop_impl(each, 0);
	return 0;
}

SEC("tc") int object_of_this_cpu(struct __sk_buff *skb)
{
	struct kept *kept = find();
	struct plain *mine;
	if (!kept || !kept->each)
		return 0;
	mine = bpf_this_cpu_ptr(kept->each);
	mine->data = 1;
	return 0;
}

SEC("syscall") REFUSED(bad-argument) int object_of_this_cpu_that_no_map_keeps(void *context)
{
	void *each = bpf_percpu_obj_new_impl(type_id(struct plain), 0);
	if (!each)
		return 0;
	struct plain *mine = bpf_this_cpu_ptr(each);
	mine->data = 1;
	bpf_percpu_obj_drop_impl(each, 0);
	return 0;
}

SEC("syscall") int object_of_this_cpu_in_an_rcu_section(void *context)
{
	struct kept *kept = find();
	if (!kept)
		return 0;
	bpf_rcu_read_lock();
	void *each = kept->each;
	if (each) {
		struct plain *mine = bpf_this_cpu_ptr(each);
		mine->data = 1;
	}
	bpf_rcu_read_unlock();
	return 0;
}

SEC("syscall") REFUSED(bad-argument) int object_of_this_cpu_without_a_section(void *context)
{
	struct kept *kept = find();
	if (!kept)
		return 0;
	void *each = kept->each;
	if (each) {
		struct plain *mine = bpf_this_cpu_ptr(each);
		mine->data = 1;
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
