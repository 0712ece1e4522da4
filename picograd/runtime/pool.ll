; pool.ll: threads that wait for work, and captured calls. runtime/cpu.py fills in PAUSE and is the only caller.
; Control block: a generation that counts up with each job; at 64 the job: entry, table, number of instances; for worker k at
; 128 + 64*k the last generation it has finished, and whether it sleeps. The worker says that it sleeps before it looks at the
; generation a last time, the poster looks at sleepers after it has counted up: one of them sees the other.

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

; a worker's life: 0 when it has waited too long and will sleep, 1 when it is told to quit
define i64 @pool_worker(ptr %control, i64 %me, i64 %size, i64 %patience) #0 {
start:
  %line = mul i64 %me, 64
  %base = getelementptr i8, ptr %control, i64 128
  %done = getelementptr i8, ptr %base, i64 %line
  %asleep = getelementptr i8, ptr %done, i64 8
  %entry.at = getelementptr i8, ptr %control, i64 64
  %table.at = getelementptr i8, ptr %control, i64 72
  %count.at = getelementptr i8, ptr %control, i64 80
  store atomic i64 0, ptr %asleep seq_cst, align 8
  %first = load atomic i64, ptr %done acquire, align 8
  br label %wait
wait:
  %last = phi i64 [ %first, %start ], [ %job, %work ]
  br label %spin
spin:
  %turn = phi i64 [ 0, %wait ], [ %next, %idle ]
  %now = load atomic i64, ptr %control acquire, align 8
  %new = icmp ne i64 %now, %last
  br i1 %new, label %take, label %idle
idle:
  PAUSE
  %next = add i64 %turn, 1
  %tired = icmp uge i64 %next, %patience
  br i1 %tired, label %lie.down, label %spin
lie.down:
  store atomic i64 1, ptr %asleep seq_cst, align 8
  %late = load atomic i64, ptr %control seq_cst, align 8
  %missed = icmp ne i64 %late, %last
  br i1 %missed, label %get.up, label %sleep
get.up:
  store atomic i64 0, ptr %asleep seq_cst, align 8
  br label %take
sleep:
  ret i64 0
take:
  %job = phi i64 [ %now, %spin ], [ %late, %get.up ]
  %entry = load ptr, ptr %entry.at, align 8
  %table = load ptr, ptr %table.at, align 8
  %count = load i64, ptr %count.at, align 8
  %quit = icmp eq ptr %entry, null
  br i1 %quit, label %leave, label %work
work:
  call void @pool_share(ptr %entry, ptr %table, i64 %me, i64 %size, i64 %count)
  store atomic i64 %job, ptr %done release, align 8
  br label %wait
leave:
  store atomic i64 %job, ptr %done release, align 8
  ret i64 1
}

; posts a job, runs the caller's share and waits: 0 done, -1 others are late; or, with nothing run here, how many sleep
define i64 @pool_run(ptr %control, ptr %entry, ptr %table, i64 %count, i64 %size, i64 %patience) #0 {
start:
  %entry.at = getelementptr i8, ptr %control, i64 64
  %table.at = getelementptr i8, ptr %control, i64 72
  %count.at = getelementptr i8, ptr %control, i64 80
  store ptr %entry, ptr %entry.at, align 8
  store ptr %table, ptr %table.at, align 8
  store i64 %count, ptr %count.at, align 8
  %old = load i64, ptr %control, align 8
  %job = add i64 %old, 1
  store atomic i64 %job, ptr %control seq_cst, align 8
  br label %look
look:
  %k = phi i64 [ 1, %start ], [ %next, %ask ]
  %sleepers = phi i64 [ 0, %start ], [ %sum, %ask ]
  %more = icmp ult i64 %k, %size
  br i1 %more, label %ask, label %decide
ask:
  %line = mul i64 %k, 64
  %offset = add i64 %line, 136
  %asleep = getelementptr i8, ptr %control, i64 %offset
  %was = atomicrmw xchg ptr %asleep, i64 0 seq_cst
  %sum = add i64 %sleepers, %was
  %next = add i64 %k, 1
  br label %look
decide:
  %awake = icmp eq i64 %sleepers, 0
  br i1 %awake, label %mine, label %wake
wake:
  ret i64 %sleepers
mine:
  %quit = icmp eq ptr %entry, null
  br i1 %quit, label %finish, label %work
work:
  call void @pool_share(ptr %entry, ptr %table, i64 0, i64 %size, i64 %count)
  br label %finish
finish:
  %left = call i64 @pool_wait(ptr %control, i64 %size, i64 %patience)
  ret i64 %left
}

; waits for the others: 0 done, -1 patience is at an end
define i64 @pool_wait(ptr %control, i64 %size, i64 %patience) #0 {
start:
  %job = load i64, ptr %control, align 8
  br label %look
look:
  %k = phi i64 [ 1, %start ], [ %next, %seen ]
  %more = icmp ult i64 %k, %size
  br i1 %more, label %spin.first, label %done
spin.first:
  %line = mul i64 %k, 64
  %offset = add i64 %line, 128
  %at = getelementptr i8, ptr %control, i64 %offset
  br label %spin
spin:
  %turn = phi i64 [ 0, %spin.first ], [ %turns, %idle ]
  %now = load atomic i64, ptr %at acquire, align 8
  %arrived = icmp eq i64 %now, %job
  br i1 %arrived, label %seen, label %idle
idle:
  PAUSE
  %turns = add i64 %turn, 1
  %tired = icmp uge i64 %turns, %patience
  br i1 %tired, label %late, label %spin
seen:
  %next = add i64 %k, 1
  br label %look
done:
  ret i64 0
late:
  ret i64 -1
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
  %arrived = load atomic i64, ptr %records acquire, align 8
  %all = icmp uge i64 %arrived, %due.now
  br i1 %all, label %advance, label %idle
idle:
  PAUSE
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
