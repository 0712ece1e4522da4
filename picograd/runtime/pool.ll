; pool.ll: threads that wait for work, and captured calls. runtime/cpu.py fills in PAUSE and is the only caller.
; Control block: at 0 a generation that counts up with each job; at 8 how many workers sleep; at 64 the job: entry, table, number
; of instances; at 128 a mutex, at 256 a condition; at 512 + 64*k the last generation whose share k was claimed, and the last
; one whose share k is done. Whoever changes `claimed` from job - 1 to job runs that share: worker k, or the caller if worker k
; has not begun when the caller is done with its own. So nobody waits for a thread that has no processor, unless it is at work.

; nonlazybind: llvmlite reserves room for the addresses of such functions only
declare i32 @sched_yield() nonlazybind
declare i32 @pthread_mutex_lock(ptr) nonlazybind
declare i32 @pthread_mutex_unlock(ptr) nonlazybind
declare i32 @pthread_cond_wait(ptr, ptr) nonlazybind
declare i32 @pthread_cond_broadcast(ptr) nonlazybind

; one turn of waiting: short waits keep the processor, long ones give it to whoever needs it
define void @pool_idle(i64 %turn) #0 {
start:
  %early = icmp ult i64 %turn, 1000
  br i1 %early, label %pause, label %yield
pause:
  PAUSE
  ret void
yield:
  %ignored = call i32 @sched_yield()
  ret void
}

; entry(table, k) for k = me, me + size, .. below count
define void @pool_share(ptr %entry, ptr %table, i64 %me, i64 %size, i64 %count) #0 {
start:
  %some = icmp ult i64 %me, %count
  br i1 %some, label %run, label %out
run:
  %k = phi i64 [ %me, %start ], [ %next, %run ]
  call void %entry(ptr %table, i64 %k)
  %next = add i64 %k, %size
  %more = icmp ult i64 %next, %count
  br i1 %more, label %run, label %out
out:
  ret void
}

; claims share k of a job and runs it, unless that was done before. The job's fields are read first: if the claim succeeds, the
; job was not over and they were its own
define void @pool_take(ptr %control, i64 %k, i64 %size, i64 %job) #0 {
start:
  %offset = mul i64 %k, 64
  %base = getelementptr i8, ptr %control, i64 512
  %claimed.at = getelementptr i8, ptr %base, i64 %offset
  %done.at = getelementptr i8, ptr %claimed.at, i64 8
  %entry.at = getelementptr i8, ptr %control, i64 64
  %table.at = getelementptr i8, ptr %control, i64 72
  %count.at = getelementptr i8, ptr %control, i64 80
  %entry = load atomic ptr, ptr %entry.at monotonic, align 8
  %table = load atomic ptr, ptr %table.at monotonic, align 8
  %count = load atomic i64, ptr %count.at monotonic, align 8
  %before = sub i64 %job, 1
  %pair = cmpxchg ptr %claimed.at, i64 %before, i64 %job acq_rel acquire
  %mine = extractvalue { i64, i1 } %pair, 1
  br i1 %mine, label %work, label %out
work:
  call void @pool_share(ptr %entry, ptr %table, i64 %k, i64 %size, i64 %count)
  store atomic i64 %job, ptr %done.at release, align 8
  br label %out
out:
  ret void
}

; a worker's life: it ends with a job that has no entry. After about a millisecond without work the worker sleeps. It counts
; itself as a sleeper before it looks at the generation a last time, the caller looks at sleepers after it has counted up: one
; of them sees the other
define void @pool_worker(ptr %control, i64 %me, i64 %size) #0 {
start:
  %offset = mul i64 %me, 64
  %base = getelementptr i8, ptr %control, i64 512
  %claimed.at = getelementptr i8, ptr %base, i64 %offset
  %sleepers = getelementptr i8, ptr %control, i64 8
  %entry.at = getelementptr i8, ptr %control, i64 64
  %mutex = getelementptr i8, ptr %control, i64 128
  %condition = getelementptr i8, ptr %control, i64 256
  br label %spin
spin:
  %turn = phi i64 [ 0, %start ], [ %next, %idle ], [ 0, %take ], [ 0, %get.up ]
  %now = load atomic i64, ptr %control acquire, align 8
  %last = load atomic i64, ptr %claimed.at acquire, align 8
  %new = icmp ne i64 %now, %last
  br i1 %new, label %take, label %look
take:
  call void @pool_take(ptr %control, i64 %me, i64 %size, i64 %now)
  %entry = load atomic ptr, ptr %entry.at acquire, align 8
  %quit = icmp eq ptr %entry, null
  br i1 %quit, label %leave, label %spin
look:
  %tired = icmp uge i64 %turn, 3000
  br i1 %tired, label %lie.down, label %idle
idle:
  call void @pool_idle(i64 %turn)
  %next = add i64 %turn, 1
  br label %spin
lie.down:
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %before = atomicrmw add ptr %sleepers, i64 1 seq_cst
  br label %sleep
sleep:
  %late = load atomic i64, ptr %control seq_cst, align 8
  %known = load atomic i64, ptr %claimed.at seq_cst, align 8
  %nothing = icmp eq i64 %late, %known
  br i1 %nothing, label %rest, label %get.up
rest:
  %woken = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %sleep
get.up:
  %after = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %spin
leave:
  ret void
}

; posts a job, wakes who sleeps, runs the caller's share and each that nobody has begun, and waits for the others. A job without
; entry is left to the workers: each must see it
define void @pool_run(ptr %control, ptr %entry, ptr %table, i64 %count, i64 %size) #0 {
start:
  %sleepers = getelementptr i8, ptr %control, i64 8
  %entry.at = getelementptr i8, ptr %control, i64 64
  %table.at = getelementptr i8, ptr %control, i64 72
  %count.at = getelementptr i8, ptr %control, i64 80
  %mutex = getelementptr i8, ptr %control, i64 128
  %condition = getelementptr i8, ptr %control, i64 256
  %base = getelementptr i8, ptr %control, i64 520
  store atomic ptr %entry, ptr %entry.at monotonic, align 8
  store atomic ptr %table, ptr %table.at monotonic, align 8
  store atomic i64 %count, ptr %count.at monotonic, align 8
  %old = atomicrmw add ptr %control, i64 1 seq_cst
  %job = add i64 %old, 1
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %awake = icmp eq i64 %asleep, 0
  br i1 %awake, label %look, label %wake
wake:
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %called = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %look
look:
  %quit = icmp eq ptr %entry, null
  br i1 %quit, label %out, label %take
take:
  %k = phi i64 [ 0, %look ], [ %k.next, %take ]
  call void @pool_take(ptr %control, i64 %k, i64 %size, i64 %job)
  %k.next = add i64 %k, 1
  %untaken = icmp ult i64 %k.next, %size
  br i1 %untaken, label %take, label %wait
wait:
  %w = phi i64 [ 0, %take ], [ %w.next, %seen ]
  %offset = mul i64 %w, 64
  %done.at = getelementptr i8, ptr %base, i64 %offset
  br label %spin
spin:
  %turn = phi i64 [ 0, %wait ], [ %turn.next, %idle ]
  %done = load atomic i64, ptr %done.at acquire, align 8
  %finished = icmp eq i64 %done, %job
  br i1 %finished, label %seen, label %idle
idle:
  call void @pool_idle(i64 %turn)
  %turn.next = add i64 %turn, 1
  br label %spin
seen:
  %w.next = add i64 %w, 1
  %more = icmp ult i64 %w.next, %size
  br i1 %more, label %wait, label %out
out:
  ret void
}

; records: arrivals at barriers so far, number of calls, number of threads, then per call its entry, table, number of instances
; and whether a barrier follows it
define void @sequel(ptr %records, i64 %me) #0 {
start:
  %length.at = getelementptr i8, ptr %records, i64 8
  %size.at = getelementptr i8, ptr %records, i64 16
  %length = load i64, ptr %length.at, align 8
  %size = load i64, ptr %size.at, align 8
  %first = getelementptr i8, ptr %records, i64 24
  br label %look
look:
  %k = phi i64 [ 0, %start ], [ %k.next, %advance ]
  %record = phi ptr [ %first, %start ], [ %record.next, %advance ]
  %due = phi i64 [ 0, %start ], [ %due.next, %advance ]
  %more = icmp ult i64 %k, %length
  br i1 %more, label %work, label %out
work:
  %table.at = getelementptr i8, ptr %record, i64 8
  %count.at = getelementptr i8, ptr %record, i64 16
  %barrier.at = getelementptr i8, ptr %record, i64 24
  %entry = load ptr, ptr %record, align 8
  %table = load ptr, ptr %table.at, align 8
  %count = load i64, ptr %count.at, align 8
  %barrier = load i64, ptr %barrier.at, align 8
  call void @pool_share(ptr %entry, ptr %table, i64 %me, i64 %size, i64 %count)
  %together = icmp ne i64 %barrier, 0
  br i1 %together, label %arrive, label %advance
arrive:
  %due.now = add i64 %due, %size
  %before = atomicrmw add ptr %records, i64 1 acq_rel
  br label %spin
spin:
  %turn = phi i64 [ 0, %arrive ], [ %turn.next, %idle ]
  %arrived = load atomic i64, ptr %records acquire, align 8
  %all = icmp uge i64 %arrived, %due.now
  br i1 %all, label %advance, label %idle
idle:
  call void @pool_idle(i64 %turn)
  %turn.next = add i64 %turn, 1
  br label %spin
advance:
  %due.next = phi i64 [ %due, %work ], [ %due.now, %spin ]
  %k.next = add i64 %k, 1
  %record.next = getelementptr i8, ptr %record, i64 32
  br label %look
out:
  ret void
}

attributes #0 = { nounwind }
