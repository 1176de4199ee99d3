"""Training jobs as plain PyTorch loops, in the style of the published benchmarks: what limbeck is compared with.

One file a method. Each is what a careful researcher writes by hand: Pillow images through torchvision's transforms in a
DataLoader, float32, the losses in a few lines, everything that need not be computed twice computed once. Only the
networks' architectures are shared with limbeck. Every job has `step(images, targets, index)`, as in

    for images, targets, index in loader:
        job.step(images, targets, index)
"""
