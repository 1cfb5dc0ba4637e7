"""Tasks: what runs train on and are tested on, from images, tables, sequences, arrays or any PyTorch data set."""

from eqprop.draws import generator_for as generator_for
from eqprop.tasks.arrays import Arrays as Arrays, ArraySets as ArraySets
from eqprop.tasks.batches import Augmentation as Augmentation, Batches as Batches, Draw as Draw, Examples as Examples
from eqprop.tasks.cache import cache_folder as cache_folder
from eqprop.tasks.datasets import DatasetExamples as DatasetExamples, as_task as as_task
from eqprop.tasks.formats import Classes as Classes, Inputs as Inputs, Outputs as Outputs, Values as Values
from eqprop.tasks.images import ImageInputs as ImageInputs, Images as Images, ImageSets as ImageSets
from eqprop.tasks.manifest import Manifest as Manifest
from eqprop.tasks.sequences import (
    ArrayInputs as ArrayInputs,
    SequenceInputs as SequenceInputs,
    load_sequences as load_sequences,
)
from eqprop.tasks.sources import load_images as load_images
from eqprop.tasks.tables import TableInputs as TableInputs, load_table as load_table
from eqprop.tasks.task import Task as Task, share_of as share_of
from eqprop.tasks.transforms import Crop as Crop, Cutout as Cutout, Flip as Flip, Normalise as Normalise
