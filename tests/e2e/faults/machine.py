"""What a machine does to a run: ports, memory, disks, compilers, kills."""

from __future__ import annotations

from tests.e2e.faults.fault import Fault

CHECKPOINT = "{tmp}/run/checkpoints/step-00000006"
MACHINE = [
    Fault(
        what="run folder below a file",
        command="wsol train {tmp}/recipe.yaml --out {tmp}/recipe.yaml/run",
        message="--out {tmp}/recipe.yaml/run: cannot be written: Not a directory; choose another folder",
        fix="as it says",
    ),
    Fault(
        what="run folder that is a file",
        command="submit {tmp}/recipe.yaml --cluster local --out {tmp}/recipe.yaml",
        message="--out {tmp}/recipe.yaml: cannot be written: File exists; choose another folder",
        fix="as it says",
    ),
    Fault(
        what="run folder on a read-only disk",
        command="a run folder that this user or this disk does not let write",
        message="--out {tmp}/run: cannot be written: ...; choose another folder",
        fix="as it says",
        test="test_disk.py::test_a_read_only_run_folder",
    ),
    Fault(
        what="two trainings in one run folder",
        command="the same command, started while the first runs",
        message="{tmp}/run: another training runs in this folder (process ... on ...); wait for its end or end it, "
        "or choose another --out",
        fix="as it says",
        then="exit 2, the first goes on undisturbed",
        test="test_runs.py::test_a_second_training_is_refused_until_the_first_is_killed",
    ),
    Fault(
        what="a training was killed",
        command="`kill -9`, a crash, a power cut",
        message="",
        fix="start it again with the same command",
        then="goes on from the newest whole checkpoint; what a killed writer left is swept away",
        test="test_runs.py::test_a_second_training_is_refused_until_the_first_is_killed",
    ),
    Fault(
        what="port in use",
        command="`MASTER_PORT` names the port of another program",
        message="MASTER_PORT: port {port} is in use by another program on this machine; set MASTER_PORT to a free one, "
        "or leave it out where one process trains",
        fix="as it says",
        test="test_runs.py::test_a_port_in_use",
    ),
    Fault(
        what="ranks without an address",
        command="`WORLD_SIZE=2` and no `MASTER_PORT`",
        message="2 ranks, but MASTER_ADDR and MASTER_PORT are not set; start them with launch/submit.py, torchrun, "
        "or a job script like slurm/molt_64gpu.sh",
        fix="as it says",
        test="test_runs.py::test_ranks_without_an_address",
    ),
    Fault(
        what="no compiler",
        command="a machine without gcc, g++ and clang",
        message="",
        fix="nothing; only `train.compile` needs one, and says so",
        then="trains: nothing is compiled at run time",
        test="test_runs.py::test_training_without_a_compiler",
    ),
    Fault(
        what="no compiler, train.compile",
        command="`--train.compile` on such a machine",
        message="train.compile: torch.compile does not work here: ...; install a C++ compiler (g++), "
        "or use --train.no-compile",
        fix="as it says",
        then="exit 2 before the data are loaded",
        test="../../dist/test_engine_zero.py::test_a_missing_compiler_is_one_line",
    ),
    Fault(
        what="too little host memory",
        command="`--data.workers 64 --train.global-batch 96` on a machine with 32 MB left",
        message="data.workers: 1 x 64 loader processes with 4 batches of 96 images of 32 px each need 0.07 GiB of "
        "memory, 0.03 GiB are free; lower data.workers or train.global_batch, raise train.accumulation, "
        "or give more of it",
        fix="as it says; the limit of a container or job counts, too",
        then="exit 2 before the first step",
        test="test_memory.py::test_too_little_host_memory",
    ),
    Fault(
        what="shared memory too small",
        command="a container with little `/dev/shm`",
        message="evaluate.workers: 1 x 8 loader processes with 4 batches of 32 images of 32 px each need 0.00 GiB of "
        "/dev/shm, 0.00 GiB are free; lower evaluate.workers or evaluate.batch_size, or give more of it",
        fix="`docker run --shm-size 8g`, say; only scoring inside training (`val.every_epochs`) needs it",
        then="exit 2 before the first step",
        test="test_runs.py::test_too_little_shared_memory",
    ),
    Fault(
        what="out of host memory",
        command="a tensor that the machine has no memory for",
        message="out of memory: you tried to allocate ... bytes; lower train.global_batch or evaluate.batch_size, "
        "raise train.accumulation, or run fewer processes here",
        fix="as it says",
        then="exit 2; checkpoints stay",
        test="test_memory.py::test_out_of_host_memory",
    ),
    Fault(
        what="out of GPU memory",
        command="a batch that the GPU has no memory for",
        message="out of GPU memory: Tried to allocate ...; lower train.global_batch or evaluate.batch_size, "
        "raise train.accumulation (smaller micro-batches, the same result), or take more GPUs",
        fix="as it says",
        then="exit 2; checkpoints stay",
        test="test_memory.py::test_out_of_gpu_memory",
    ),
    Fault(
        what="a loader process is killed",
        command="the kernel ends one for lack of memory",
        message="a data loader process (pid {pid}) was killed: the machine, or its /dev/shm, may be out of memory; "
        "lower data.workers (evaluate.workers), or give the job more memory",
        fix="as it says",
        then="exit 2; checkpoints stay",
        test="test_memory.py::test_a_loader_process_is_killed",
    ),
    Fault(
        what="a temporary folder with a long name",
        command="`TMPDIR` of 76 bytes and more, and loader processes",
        message="TMPDIR: {folder} has {length} bytes, at most 75 are allowed, since loader processes make sockets in "
        "it; set TMPDIR to a shorter path, or data.workers and evaluate.workers to 0",
        fix="as it says",
        then="exit 2 before a batch is read; without this check the run would wait for ever",
        test="test_disk.py::test_a_temporary_folder_with_a_long_name",
    ),
    Fault(
        what="disk full while a checkpoint is written",
        command="a run folder on a disk with too little space",
        message=f"{CHECKPOINT}: this checkpoint cannot be written (...); there is none yet; free space there, "
        "and the same command goes on",
        fix="as it says",
        then="exit 2; the half-written checkpoint is removed, whole ones stay",
        test="test_disk.py::test_a_checkpoint_onto_a_full_disk",
    ),
    Fault(
        what="paths with blanks",
        command="recipe, shards and run folder in folders with blanks",
        message="",
        fix="nothing",
        then="works: pack, submit, train, evaluate, report",
        test="../test_chain.py::test_the_chain_ends_well_and_says_where_to_look",
    ),
]
